"""What the app shows, without the app: labeling uploads while somebody watches, and looking through an output."""

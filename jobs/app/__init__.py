"""`labelmill app`: a page on this machine to try a checkpoint and to look through an output."""

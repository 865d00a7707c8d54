"""A finished output -> files in a form that training code reads: see `pipeline.exports.export`."""

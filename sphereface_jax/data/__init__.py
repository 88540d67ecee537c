"""Where faces come from, and the pipeline that feeds them to a training step."""

"""What makes the model `base`: stages that each go on where they were killed (`make base-checkpoint`)."""

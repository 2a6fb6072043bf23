"""What the training loop trains: one learner for each treatment of the weights."""

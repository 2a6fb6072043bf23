"""What the columns of a sample are: its features, units and extras."""

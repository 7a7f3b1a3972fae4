"""What quantizing each projection alone costs, and the mixed recipe that follows from it."""

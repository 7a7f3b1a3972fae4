"""Reading graphs for planning: sizes of every tensor, what lives when, work of every operator. No weight is read."""

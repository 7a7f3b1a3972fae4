"""What a machine tells of its power, clocks, temperatures and throttling: best effort, read in a thread beside."""

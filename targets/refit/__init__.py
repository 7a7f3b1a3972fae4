"""Fine-tuned weights into engines that are built: same graphs, same shapes, no rebuild."""

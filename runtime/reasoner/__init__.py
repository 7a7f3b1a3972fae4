"""The reasoner: images, video and text in, text out, without torch."""

"""Pictures and sound as files."""

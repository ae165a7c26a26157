"""What is copied into an exported folder; it has to do without this project."""

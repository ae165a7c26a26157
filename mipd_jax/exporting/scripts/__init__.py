"""Scripts copied into an exported folder; they run without this project."""

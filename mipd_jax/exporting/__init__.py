"""A trained student as a folder that needs neither this project nor Flax."""

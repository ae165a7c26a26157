"""Random kills and damage: does a run end correctly, or name the fault?"""

"""Kills and damage at random: does a run end right, or say what is wrong?"""

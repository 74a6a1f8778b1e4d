"""Predictions in the forms that challenges and other tools read."""

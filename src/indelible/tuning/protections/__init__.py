"""What keeps edits while a model is tuned, one file each; `tuning.protection` says what a protection is."""

"""The text of a user's file: targets, models, losses, example shapes. Never imports torch, never executes."""

"""The frozen reference trainer. It imports torch and no other room, and runs alone under torchrun."""

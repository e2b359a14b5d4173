"""Fixtures every kind of test shares. Folder-specific ones live beside their tests."""

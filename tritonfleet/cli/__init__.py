"""What a person types: parse, call the control API, print. No decisions."""

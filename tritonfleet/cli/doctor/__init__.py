"""`doctor`: is this host fit to run the fleet, and what to do where it is not."""

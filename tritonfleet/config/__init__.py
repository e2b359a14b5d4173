"""The fleet file: tritonfleet.yaml to FleetSpec, every error at once with its place and remedy."""

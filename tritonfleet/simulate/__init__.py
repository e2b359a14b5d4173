"""The fleet in virtual time: the decisions of `tritonfleet.core` around requests that nobody sends."""

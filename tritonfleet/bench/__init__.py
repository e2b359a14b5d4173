"""A load generator for any model behind any gRPC address; `tritonfleet bench` is its command."""

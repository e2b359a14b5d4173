"""The data plane process: sockets, streams, dispatch, telemetry."""

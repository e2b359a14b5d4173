"""The control plane process: observe, decide, act; the control API; the journal of events."""

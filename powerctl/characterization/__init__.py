"""The characterisation study: what training and inference cost on a device, and why."""

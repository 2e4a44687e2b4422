"""The commands of `powerctl`, one module a subject; `powerctl.cli` registers them."""

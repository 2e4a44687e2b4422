"""The longer commands of `powerctl`, one module each; `powerctl.cli` registers them."""

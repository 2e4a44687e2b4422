"""A Jetson's own clocks and power rails, through the files that its kernel offers."""

"""What sets up a federation across hosts: keys, certificates, and systemd units."""

"""What each subcommand of `sphereface` does; cli.py only reads its arguments."""

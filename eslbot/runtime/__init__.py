"""What every process of the service needs of the operating system and of Python."""

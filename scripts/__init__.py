"""What developers run. A package, so that tests and measured processes can import the benchmark."""

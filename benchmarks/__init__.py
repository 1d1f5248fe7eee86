"""How fast the project is: ``python -m benchmarks`` measures all in short, ``python -m benchmarks loader`` one."""

"""The back ends behind the ports: the only place that imports a driver, reads the clock or draws a random number."""

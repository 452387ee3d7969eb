"""The networks, and what binds them to the equations in `medtrans.diffusion`."""

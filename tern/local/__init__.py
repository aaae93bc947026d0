"""The whole of Tern on one machine, without Docker: embedded servers, process supervision and the demo."""

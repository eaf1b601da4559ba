"""Generated from proto/shashin/v1; `make proto` writes it anew."""

"""What tests are made with: small datasets, parameters, copies of the project, servers."""

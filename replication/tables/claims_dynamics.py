"""The claims of the theory alone, where their runs are fewer than those of the other claims.

Inputs: claims.csv, claims_by_judge.csv and claims_not_judged.csv of the dynamics, in this order.
"""

from replication.tables.claims import main

if __name__ == "__main__":
    main()

"""The numbers behind every figure, as tables that are drawn without evaluating again."""

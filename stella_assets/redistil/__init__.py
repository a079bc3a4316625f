"""Re-distillation: new texts are embedded, the student continues training, and what passes the gate is promoted."""

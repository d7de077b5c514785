"""From a prompt to more ids: how the next is picked, and what is kept from step to step."""

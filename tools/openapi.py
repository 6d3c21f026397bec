def render(image: bytes) -> str:
    return "{}\n"

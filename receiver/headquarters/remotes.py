"""stub"""


async def lay_remote(*a, **k):
    raise NotImplementedError

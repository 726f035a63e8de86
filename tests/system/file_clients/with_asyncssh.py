import asyncio
import os
import asyncssh


async def main():
    here = os.environ["HERE"]
    async with asyncssh.connect(
        "127.0.0.1",
        port=int(os.environ["PORT"]),
        username=os.environ["NAME"],
        client_keys=[os.environ["KEY"]],
        agent_path=None,
        config=None,
        known_hosts=None,
    ) as connection:
        async with connection.start_sftp_client() as files:
            await files.put(f"{here}/file", "place/kept")
            await files.put(f"{here}/file", "place/first", preserve=True)
            await files.rename("place/first", "place/second name")
            for entry in await files.readdir("place"):
                print(entry.longname)
            await files.get("place/second name", f"{here}/back", preserve=True)
            await files.remove("place/second name")
            await files.symlink("kept", "place/link")
            assert os.readlink(os.environ["REMOTE"] + "/link") == "kept"
            await files.remove("place/link")


asyncio.run(main())

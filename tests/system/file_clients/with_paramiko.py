import os
import paramiko

here = os.environ["HERE"]
transport = paramiko.Transport(("127.0.0.1", int(os.environ["PORT"])))
transport.connect(
    username=os.environ["NAME"],
    pkey=paramiko.Ed25519Key.from_private_key_file(os.environ["KEY"]),
)
files = paramiko.SFTPClient.from_transport(transport)
files.put(f"{here}/file", "place/kept", confirm=True)
files.put(f"{here}/file", "place/first", confirm=True)
files.rename("place/first", "place/second name")
for entry in files.listdir_attr("place"):
    print(entry)
files.get("place/second name", f"{here}/back")
files.remove("place/second name")
transport.close()

"""What travels over HTTP: the bodies of requests and answers, shared by the server and `faceward.Client`.

Times are RFC 3339 in UTC. A similarity is the cosine of two embeddings, 0..1 (what lies below 0 is 0), and match_score the
same in percent. Boxes are in pixels of the image as it was sent, after its EXIF orientation was applied.
"""

"""What preprocess.py feeds to the reference: sizes, pixels, image files, lines of text and conversations.

Everything is made by a formula or a seeded generator, so that two runs give the same bytes.
"""

import io
import random

import numpy as np
from PIL import Image

BUDGETS = (70, 140, 280, 560, 1120)


def sizes():
    """(height, width, budget) triples: round, odd, extreme, and those whose ideal side is an exact multiple of 48."""
    rng = random.Random(4)
    cases = [(480, 640, 280), (768, 768, 280), (1080, 1920, 280), (3000, 4000, 280), (224, 224, 280), (480, 640, 70),
             (480, 640, 1120), (22, 385, 70), (385, 22, 70), (16, 16000, 280), (3, 900, 280), (900, 3, 280),
             (1, 1, 280), (1, 300, 280), (300, 1, 280), (1, 281, 280), (281, 1, 280), (1, 65535, 70), (65535, 1, 1120)]
    for budget in BUDGETS:
        for a in range(1, budget + 1):
            if budget % a == 0:  # h:w = a:b with a*b = budget: the floor hangs on the last bit
                b = budget // a
                cases += [(a * k, b * k, budget) for k in (1, 2, 3, 7, 11, 13, 48, 77)]
        cases += [(s, s, budget) for s in (1, 2, 15, 16, 17, 47, 48, 49, 95, 96, 97, 767, 768, 769, 8192)]
        cases += [(1, budget * m + d, budget) for m in (1, 2, 50) for d in (-1, 0, 1)]
        cases += [(budget * m + d, 1, budget) for m in (1, 2, 50) for d in (-1, 0, 1)]
    for _ in range(2600):
        top = 10 ** rng.uniform(0.1, 4.3)
        h, w = (max(1, int(10 ** rng.uniform(0, np.log10(top)))) for _ in range(2))
        cases.append((h, w, rng.choice(BUDGETS)))
    return cases


def resizes():
    """(height, width, budget, pattern) of the resizes: small to 12 megapixels, strips, and axes that keep their size."""
    rng = random.Random(5)
    cases = [(1, 1, 70), (1, 2, 280), (3, 900, 280), (16, 2000, 280), (2000, 16, 70), (16, 16000, 280), (1, 300, 280),
             (300, 1, 280), (22, 385, 70), (480, 640, 280), (640, 480, 70), (768, 768, 280), (768, 700, 280),
             (672, 900, 280), (660, 912, 280), (3000, 4000, 280), (1080, 1920, 560), (97, 113, 1120), (5, 5, 140),
             (255, 180, 70), (110, 220, 70), (1200, 801, 140)]
    for _ in range(28):
        cases.append((int(10 ** rng.uniform(0.3, 3.1)), int(10 ** rng.uniform(0.3, 3.1)), rng.choice(BUDGETS[:4])))
    return [(*case, index % 2) for index, case in enumerate(cases)]


def pixels(height, width, pattern):
    """[h, w, 3] u8 by integers alone; the tests compute the same. Pattern 0 is noise, 1 smooth with hard edges."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint64) for n in (height, width, 3)), indexing="ij", sparse=True)
    if pattern == 0:
        mixed = (x * 2654435761 + y * 2246822519 + c * 3266489917) % 4294967296
        mixed = (mixed ^ (mixed >> np.uint64(15))) * 2246822519 % 4294967296
        return ((mixed >> np.uint64(13)) & np.uint64(255)).astype(np.uint8)
    smooth = (x * 3 + y * 2 + c * 80) % 512
    smooth = np.where(smooth < 256, smooth, 511 - smooth)
    edge = ((x // 37 + y // 23) % 3 == 0) & (c != 1)
    return np.where(edge, 255 - smooth // 3, smooth).astype(np.uint8)


def ramp(height, width, channels):
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * (7 + 4 * k) + y * (5 + 3 * k) + 40 * k) % 256 for k in range(channels)], -1).astype(np.uint8)


def waves(height, width):
    y, x = np.mgrid[0:height, 0:width]
    bands = (np.sin(x / 5 + y / 9), np.cos(x / 7 - y / 4), np.sin((x + y) / 6))
    return np.stack([127.5 + 120 * band for band in bands], -1).astype(np.uint8)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags.tobytes()


def formats():
    """name -> bytes of small image files, every variant that a decoder treats in its own way."""
    size = (23, 37)
    rgb, rgba = Image.fromarray(waves(*size)), Image.fromarray(ramp(*size, 4), "RGBA")
    la, grey = Image.fromarray(ramp(*size, 2), "LA"), Image.fromarray(ramp(*size, 1)[..., 0])
    wide = (ramp(*size, 1)[..., 0].astype(np.uint16) * 251 + ramp(*size, 2)[..., 1]).astype(np.uint16)
    tall = Image.fromarray(waves(31, 18))
    files = {f"png_{name}.png": encoded(image, "PNG") for name, image in
             dict(rgb=rgb, rgba=rgba, la=la, grey=grey, grey1=grey.convert("1"), grey16=Image.fromarray(wide),
                  palette=rgb.quantize(200)).items()}
    for bits in (1, 2, 4):
        files[f"png_palette{bits}.png"] = encoded(rgb.quantize(2 ** bits), "PNG", bits=bits)
    files["png_palette_trns.png"] = encoded(rgb.quantize(8), "PNG", transparency=2)
    files["png_grey_trns.png"] = encoded(grey, "PNG", transparency=40)
    files["png_rgb_trns.png"] = encoded(rgb, "PNG", transparency=(127, 247, 127))
    files |= raw_pngs()
    for orientation in range(1, 9):
        files[f"jpeg_exif{orientation}.jpg"] = encoded(tall, "JPEG", quality=90, exif=exif(orientation))
    for orientation in (3, 6):
        files[f"png_exif{orientation}.png"] = encoded(tall, "PNG", exif=exif(orientation))
        files[f"webp_exif{orientation}.webp"] = encoded(tall, "WEBP", lossless=True, exif=exif(orientation))
    for name, subsampling in dict(s444=0, s422=1, s420=2).items():
        for quality in (40, 75, 95):
            for progressive in (False, True):
                kind = "progressive" if progressive else "baseline"
                files[f"jpeg_{name}_q{quality}_{kind}.jpg"] = encoded(
                    rgb, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
    noise = Image.fromarray(pixels(40, 30, 0))
    files["jpeg_noise.jpg"] = encoded(noise, "JPEG", quality=60)
    files["jpeg_noise_444.jpg"] = encoded(noise, "JPEG", quality=90, subsampling=0)
    files["jpeg_restarts.jpg"] = encoded(rgb, "JPEG", quality=80, restart_marker_blocks=2)
    files["jpeg_restarts_progressive.jpg"] = encoded(rgb, "JPEG", quality=80, restart_marker_rows=1, progressive=True)
    files["jpeg_optimized.jpg"] = encoded(rgb, "JPEG", quality=80, optimize=True)
    files["jpeg_rgb.jpg"] = encoded(rgb, "JPEG", quality=85, keep_rgb=True)
    files["jpeg_grey.jpg"] = encoded(grey, "JPEG", quality=85)
    files["jpeg_grey_progressive.jpg"] = encoded(grey, "JPEG", quality=85, progressive=True)
    files["jpeg_cmyk.jpg"] = encoded(Image.fromarray(ramp(*size, 4), "CMYK"), "JPEG", quality=90)
    files["jpeg_cmyk_progressive.jpg"] = encoded(rgb.convert("CMYK"), "JPEG", quality=90, progressive=True)
    for width, height in ((1, 1), (2, 1), (1, 2), (3, 3), (8, 8), (9, 7), (15, 17), (16, 16), (17, 33)):
        files[f"jpeg_{width}x{height}.jpg"] = encoded(Image.fromarray(waves(height, width)), "JPEG", quality=85)
    files |= patched_jpegs()
    files["webp_lossless.webp"] = encoded(rgb, "WEBP", lossless=True)
    files["webp_lossless_alpha.webp"] = encoded(rgba, "WEBP", lossless=True, exact=True)
    for quality in (30, 80):
        files[f"webp_lossy_q{quality}.webp"] = encoded(rgb, "WEBP", quality=quality)
    files["webp_lossy_alpha.webp"] = encoded(rgba, "WEBP", quality=80)
    files["webp_animated.webp"] = encoded(rgb, "WEBP", lossless=True, save_all=True, append_images=[rgb.rotate(180)])
    coloured = rgb.quantize(32)
    files["gif.gif"] = encoded(coloured, "GIF")
    files["gif_interlaced.gif"] = encoded(coloured, "GIF", interlace=1)
    files["gif_transparent.gif"] = encoded(coloured, "GIF", transparency=3, background=1)
    files["gif_animated.gif"] = encoded(coloured, "GIF", save_all=True, append_images=[rgb.rotate(180).quantize(32)])
    for name, image in dict(rgb=rgb, rgba=rgba, grey=grey, grey1=grey.convert("1"), palette=rgb.quantize(16)).items():
        files[f"bmp_{name}.bmp"] = encoded(image, "BMP")
    return files


def patched_jpegs():
    """What Pillow cannot write: other sampling factors (the data then show something else), and other colour markers."""
    files = {}
    calm = Image.fromarray((128 + (pixels(61, 45, 1).astype(int) - 128) // 12).astype(np.uint8))
    factors = dict(h1v2=(0x12, 0x11, 0x11), h2v2=(0x22, 0x11, 0x11), h4v1=(0x41, 0x11, 0x11), h4v2=(0x42, 0x11, 0x11),
                   mixed=(0x22, 0x21, 0x12), chroma=(0x21, 0x11, 0x21))
    for name, sampling in factors.items():
        content = bytearray(encoded(calm, "JPEG", quality=95, subsampling=0))
        frame = content.find(b"\xff\xc0")
        content[frame + 11], content[frame + 14], content[frame + 17] = sampling
        files[f"jpeg_sampling_{name}.jpg"] = bytes(content)
    turned = encoded(calm, "JPEG", quality=95, exif=exif(6))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    files["jpeg_xmp_first.jpg"] = turned[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + turned[2:]
    content = encoded(calm, "JPEG", quality=95, subsampling=0)
    files["jpeg_without_jfif.jpg"] = content[:2] + content[20:]
    inks = encoded(Image.fromarray(pixels(24, 31, 1)).convert("CMYK"), "JPEG", quality=95)
    adobe = inks.find(b"\xff\xee")
    files["jpeg_cmyk_without_adobe.jpg"] = inks[:adobe] + inks[adobe + 16:]
    files["jpeg_ycck.jpg"] = inks[:adobe + 15] + b"\2" + inks[adobe + 16:]
    return files


def raw_pngs():
    """What Pillow cannot write: 16-bit colour, grey of 2 and 4 bits, and Adam7."""
    import struct
    import zlib

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    def png(width, height, depth, color, interlace, raw):
        header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")

    def plain(rows):
        return b"".join(b"\0" + row.tobytes() for row in rows)

    def adam7(image):
        passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
        parts = (image[y::dy, x::dx] for y, x, dy, dx in passes)
        return b"".join(plain(part) for part in parts if part.size)

    wide = (ramp(19, 21, 4).astype(np.uint16) * 257 ^ 0x5A).astype(">u2")
    eight = waves(19, 21)
    files = {
        "png_rgb16.png": png(21, 19, 16, 2, 0, plain(wide[..., :3])),
        "png_rgba16.png": png(21, 19, 16, 6, 0, plain(wide)),
        "png_la16.png": png(21, 19, 16, 4, 0, plain(wide[..., :2])),
        "png_rgb_interlaced.png": png(21, 19, 8, 2, 1, adam7(eight)),
        "png_rgba_interlaced.png": png(21, 19, 8, 6, 1, adam7(ramp(19, 21, 4))),
        "png_grey_interlaced.png": png(21, 19, 8, 0, 1, adam7(eight[..., 0])),
        "png_tiny_interlaced.png": png(2, 3, 8, 2, 1, adam7(eight[:3, :2])),
    }
    for bits in (2, 4):
        values = ramp(19, 24, 1)[..., 0] >> (8 - bits)
        packed = np.zeros((19, 24 * bits // 8), np.uint8)
        for k in range(8 // bits):
            packed |= values[:, k :: 8 // bits] << np.uint8(8 - bits * (k + 1))
        files[f"png_grey{bits}.png"] = png(24, 19, bits, 0, 0, plain(packed))
    return files

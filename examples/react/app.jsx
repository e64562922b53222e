import { useState } from "react";
import { createRoot } from "react-dom/client";

function Photos() {
  const [photos, setPhotos] = useState([]);
  const add = ({ detail }) => setPhotos((before) => [detail.answer, ...before]);
  return (
    <main>
      <h1>Photos</h1>
      <uponce-upload sign="/sign" accept="image/*,video/mp4" multiple onuploaded={add} />
      <div className="photos">
        {photos.map(({ asset_id, resource_type, secure_url, public_id }) =>
          resource_type === "video" ? (
            <video key={asset_id} src={secure_url} controls />
          ) : (
            <img key={asset_id} src={secure_url} alt={public_id} />
          ),
        )}
      </div>
    </main>
  );
}

createRoot(document.querySelector("#root")).render(<Photos />);
